"""The conformance kit: says of a plug-in what was expected, what came, and how to mend it."""
