"""Files and folders in general: written whole or not at all, replaced only where earteach wrote them."""
