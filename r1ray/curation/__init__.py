"""From samples to a dataset: filters, choice, form. Pure functions of samples and configuration; no Ray, no torch.

SampleRows --filters--> --choice within a prompt--> --quotas--> --form--> (--refinement-->) dataset, dropped, report
conversations that are there already --duplicates--> --quotas--> --form--^
"""
