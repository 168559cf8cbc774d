"""Reward models: from preferences to a Hugging Face sequence classifier with one label.

rows.py --Example--> model.py (packed scores, loss) --> rank.py --> report.py, the exported folder
"""
