"""The Gymnasium door: any treerl environment, one latent or many at a time."""
