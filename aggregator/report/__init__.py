"""Views for a coordinator: the state of a run, a live view, and a page to keep.

``state`` folds the run's journal into one value and does no I/O; ``live``
shows it in a terminal; ``html`` writes it, with the figures of ``figures``,
as one self-contained page. Everything here reads; nothing here may steer a
run, open an image file or fetch anything from a network.
"""
