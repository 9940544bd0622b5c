"""How fast a device would be, and other systems beside it: simulated time, cost models, the paper's tables.

The simulator belongs to another package and is found by name (:func:`nearflash.tools.load_tool`).
"""
