"""The engine: study files, places, steps, runs, the graph, papermill, reports."""


def __getattr__(name):
    if name == "open_step":  # on demand: the graph needs no step
        from ecglib.study.step import open_step

        return open_step
    raise AttributeError(f"module 'ecglib.study' has no attribute '{name}'")
