"""A small analysis: output that is seen at once, a picture, a table.

Run it with: scripts/run examples/quickstart.py --results out
"""

import time

import matplotlib.pyplot as plt
import pandas as pd

months = ["January", "February", "March", "April", "May", "June"]
litres = [310, 295, 402, 518, 610, 655]

for month in months:
    print(f"reading the gauge of {month} ...")
    time.sleep(0.3)

water = pd.DataFrame({"month": months, "litres": litres})
water["change"] = water["litres"].diff()

water.plot.bar(x="month", y="litres", legend=False, title="Water through the headrace")
plt.tight_layout()
plt.show()

print(f"{water['litres'].sum()} litres in {len(water)} months")
water
