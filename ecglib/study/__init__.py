"""The engine: study files, places, steps, runs, the graph, papermill, reports."""


def __getattr__(name):
    if name in ("open_run", "open_step"):  # on demand: the graph needs no step
        from ecglib.study import step

        return getattr(step, name)
    raise AttributeError(f"module 'ecglib.study' has no attribute '{name}'")
