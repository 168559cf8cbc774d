"""Build a dataset from samples: filters, choice, output format.

Pure functions of samples and configuration, without Ray and torch.

SampleRows --filters--> --choice within a prompt--> --quotas--> --form--> (--refinement-->) dataset, dropped, report
existing conversations --duplicates--> --quotas--> --form--^
"""
