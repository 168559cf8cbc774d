"""Recipes: named stages with declared inputs and outputs, each a command of r1ray in a process of its own.

    reading   recipe file + overlays -> Recipe (stages as written)
    graph     Recipe -> what each stage reads, in an order that works
    tasks     stage -> command, configuration, fingerprint
    standing  what is done, stale, begun or to do, by the hashes of inputs and outputs
    runner    the stages one after another
    claims    what the policies are to reach
    plan      the same as a table, with what each stage cost or will cost

See docs/recipe.md.
"""
