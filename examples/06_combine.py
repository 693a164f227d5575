"""All three techniques together, and what is left of the file: one table, measured on the files.

Order matters. Training comes before quantization, because codes are not trained; and pruning before
it too, because a weight that is 0 gets a code that means exactly 0. Read beside it:
tinycompress/report.py (how the table is measured). Run it: python examples/06_combine.py
"""

import os

import tinycompress as tc
from tinycompress import optim

QUICK = os.environ.get("TINYCOMPRESS_QUICK") == "1"

train, test = tc.data.mnist()
if QUICK:
    train, test = train.take(256), test.take(200)


def trained(model, epochs, lr=0.05):
    optimizer = optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    tc.fit(model, train, 1 if QUICK else epochs, optimizer, batch_size=64, progress=True)
    return model


tc.manual_seed(0)
model = trained(tc.models.ArticleCNN(), epochs=3)

# Pruned, then quantized: the large network, thinned out.
pruned = trained(tc.prune(model, 0.9), epochs=1, lr=0.02)
pruned_4bit = tc.quantize(pruned, tc.QuantConfig(bits=4))

# Distilled, then pruned, then quantized: a small network, thinned out.
student = tc.models.TinyCNN()
rule = optim.Adam(student.parameters(), lr=0.01)
options = {"epochs": 1 if QUICK else 6, "optimizer": rule, "batch_size": 64, "progress": True}
student = tc.distill(model, student, train, **options)
thin_student = trained(tc.prune(student, 0.5), epochs=1, lr=0.02)
smallest = tc.quantize(thin_student, tc.QuantConfig(bits=8))

table = tc.compare(
    {
        "article's CNN": model,
        "8 bits": tc.quantize(model, tc.QuantConfig(bits=8)),
        "90% pruned": pruned,
        "90% pruned, 4 bits": pruned_4bit,
        "distilled": student,
        "distilled, 50% pruned": thin_student,
        "distilled, pruned, 8 bits": smallest,
    },
    test,
)
print(table)  # every row: saved, loaded again, and then measured

codes = pruned_4bit.get_submodule("fc1").weight_codes
assert (codes == 0).mean() >= (pruned.get_submodule("fc1").weight.data == 0).mean()
