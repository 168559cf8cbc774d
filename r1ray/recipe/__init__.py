"""Recipes: named stages with declared inputs and outputs. Each stage is an r1ray command in its own process.

    stages      Recipe, Stage, and the kinds of stages
    parsing     checks of the parts of a recipe file
    reading     recipe file + overlays -> Recipe (stages as written)
    references  `@name` -> path, and what each stage reads
    tasks       stage -> command, configuration, fingerprint
    folder      the recipe's folder and its records
    status      done, stale, interrupted or pending, by the hashes of inputs and outputs
    preflight   which stages run, and what would stop one of them
    runner      run the stages one after another
    plan        the stages as a table, with measured or estimated cost

See docs/recipe.md.
"""
