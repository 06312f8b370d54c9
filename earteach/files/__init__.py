"""Files and folders: written whole or not at all, replaced only if earteach wrote them."""
