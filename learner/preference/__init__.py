"""Reward models: from preferences in JSON lines to a Hugging Face sequence classifier with one label.

rows.py --Example--> model.py (packed scores) --loss--> learner.engine --> report.py, folder
"""
