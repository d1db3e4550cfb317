"""What local_step.py compares: the models, the contenders, the bars and the table."""
