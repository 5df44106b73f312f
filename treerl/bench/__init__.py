"""`treerl bench`: recipes at equal budgets, over seeds, with intervals."""
