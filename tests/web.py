"""A small web server for tests, which knows ranges, cuts connections and keeps silent on demand."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace


@contextmanager
def served(files: dict[str, bytes]):
    """Serve `files` by name.

    The state given back has the address ``url``, the ``log`` of (name, first byte) asked for,
    ``cut`` (names whose next answer breaks off in its middle), ``failing`` (name → status of its
    next answer) and ``ranges`` (whether the server knows them).
    """
    state = SimpleNamespace(files=files, cut=set(), failing={}, log=[], ranges=True)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, status, length=0):
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            self.end_headers()

        def do_GET(self):
            name, asked = self.path.lstrip("/"), self.headers.get("Range", "")
            first = int(asked[6:-1]) if asked and state.ranges else 0
            state.log.append((name, first))
            body = state.files.get(name)
            if name in state.failing:
                return self.answer(state.failing.pop(name))
            if body is None:
                return self.answer(404)
            if first and first >= len(body):
                return self.answer(416)
            self.answer(206 if first else 200, len(body) - first)
            if name in state.cut:
                state.cut.discard(name)
                self.wfile.write(body[first : first + len(body) // 2])
                self.close_connection = True
            else:
                self.wfile.write(body[first:])

        def log_message(self, *_):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    state.url = f"http://127.0.0.1:{http.server_port}/"
    try:
        yield state
    finally:
        http.shutdown()
        http.server_close()
