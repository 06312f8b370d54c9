"""Where the ears are in photographs, from the files that people have: boxes, landmarks, sides."""
