"""The verbs of the command line, a file for each group. Nothing heavy is imported before a verb runs."""
