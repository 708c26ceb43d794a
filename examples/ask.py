"""A program may ask questions: the answers are lines of your standard input.

Run it with: scripts/run examples/ask.py
"""

name = input("What is your name? ")
sacks = int(input("How many sacks? "))
print(f"{name} gets {sacks} sacks, that is {sacks * 50} kg")
