"""The student: its loss, its Lightning module, its runs, and its comparison with the teacher."""
