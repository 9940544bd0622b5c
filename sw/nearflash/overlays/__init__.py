"""Designs for boards, as PYNQ looks for them: ``Overlay("movietweetings.bit")``. See bitstreams/README.md."""
