"""Distillation: a small network learns from what a large one answers, beside the labels.

Read beside it: tinycompress/compress/distill/losses.py (the formula and where its T² comes from).
Run it: python examples/05_distill.py
"""

import os

import tinycompress as tc
from tinycompress import functional as F, optim
from tinycompress.compress.distill import compare

QUICK = os.environ.get("TINYCOMPRESS_QUICK") == "1"
EPOCHS = 1 if QUICK else 6

train, test = tc.data.mnist()
if QUICK:
    train, test = train.take(256), test.take(200)


def recipe(model, lr):  # momentum, and a learning rate that rises to lr and falls again
    rule = optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    steps = EPOCHS * tc.data.batch_count(train, 64)
    schedule = optim.OneCycleLR(rule, max_lr=lr, total_steps=steps)
    return {"epochs": EPOCHS, "optimizer": rule, "schedule": schedule, "batch_size": 64}


tc.manual_seed(0)
teacher = tc.models.ArticleCNN()
tc.fit(teacher, train, progress=True, **recipe(teacher, lr=0.1))

# 1. What a teacher knows and a label does not: what else an image looks like. Of all images, take
# the one of which it is least certain, and soften its answer by a temperature.
logits = tc.train.predict(teacher, train.images)
unsure = F.softmax(logits).numpy().max(axis=1).argmin()
print(f"\nThe label is {train.labels[unsure]}. The teacher says, in percent for each digit,")
for temperature in (1, 4):
    shares = F.softmax(logits[unsure] / temperature, axis=0).numpy()
    print(f"  T = {temperature}:", *(f"{round(100 * p):>3}" for p in shares))


# 2. The same student twice, from the same first weights: with the labels alone, and with both.
def new_student():
    tc.manual_seed(1)
    return tc.models.TinyCNN()  # 2,346 parameters; the teacher has 179,926


alone = new_student()
tc.fit(alone, train, **recipe(alone, lr=0.1))
student = new_student()  # softened targets want smaller steps than labels
student = tc.distill(teacher, student, train, temperature=4, alpha=0.9, **recipe(student, lr=0.05))

# 3. Compare. Agreement counts mistakes too: a student can learn its teacher's.
for name, model in {"alone": alone, "distilled": student}.items():
    seen = compare(teacher, model, test)
    print(f"{name:<9} {seen.student_accuracy:.2%}, says as the teacher: {seen.agreement:.2%}")
print(f"teacher   {seen.teacher_accuracy:.2%}")
