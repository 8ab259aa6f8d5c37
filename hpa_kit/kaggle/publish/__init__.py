"""What makes datasets and notebooks for Kaggle and sends them, from a checkout."""
