"""The engine: study files, places, steps, runs, the graph, papermill, reports."""
