"""Everything that starts or reaches Ray: the composition roots of the kinds of run, and commands on a cluster.

It imports nothing itself: a command imports the module that it needs, and without torch it starts in a second or two.
"""
