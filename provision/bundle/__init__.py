"""Every wheel of a stack, uv, sgprov itself and, if asked, the Python, in one sealed file for a machine offline."""
