"""How good a policy is: pass@1 over k samples and its standard error, format, length."""
