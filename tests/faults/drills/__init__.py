"""How long it takes until jobs go on after a fault, printed beside the goal: real processes, the product's clockwork.

A drill is a function that takes the `Ground` it runs on and gives `Figure`s. `./dev faults drills` runs them, each on
stores of its own.
"""
