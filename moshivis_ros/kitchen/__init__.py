"""Its own kitchen, in small: the miniature learns a thing that it never saw, by the pipeline for real pictures.

    python -m moshivis_ros.kitchen        (or: make kitchen)
"""
