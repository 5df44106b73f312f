"""One session from Python: the built-in tiny model, trained for a few iterations."""

import treerl

session = treerl.assemble({"train.iterations": 3, "evaluate.max_prompts": 8})
print("before", session.evaluate().summary()["reward"])
for step in session.train():
    print(step.iteration, step.metrics["reward"])
print("after", session.evaluate().summary()["reward"])
