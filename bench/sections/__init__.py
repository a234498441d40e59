"""What is measured. Each module has `run(bench)`, which yields Markdown as it goes; its docstring says what it is."""
