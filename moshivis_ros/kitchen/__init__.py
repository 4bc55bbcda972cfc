"""Its own kitchen, in small: the miniature learns a thing that it never saw, by the pipeline for real pictures.

    python -m moshivis_ros.kitchen

Not there yet: see docs/fine-tuning.md.
"""
