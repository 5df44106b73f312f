"""One session from Python: the built-in tiny model, trained for a few iterations."""

import treerl

session = treerl.assemble(settings={"train.iterations": 15, "evaluate.max_prompts": 16})
print(f"before  {session.evaluate().summary()['reward']:.3f}")
for step in session.train():
    print(f"{step.iteration:6d}  {step.metrics['reward']:.3f}")
print(f"after   {session.evaluate().summary()['reward']:.3f}")
session.close()
