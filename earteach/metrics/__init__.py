"""What is measured: image quality, the use of the code, run diagnostics, and baselines."""
