"""Models of the Hugging Face Hub: finding and downloading them."""
