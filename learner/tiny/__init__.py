"""The embedded base model: tokenizer, corpus and pretraining, built on the spot in about a minute."""
