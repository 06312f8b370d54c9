"""What is measured: image quality, the use of the code, and the yardsticks beside them."""
