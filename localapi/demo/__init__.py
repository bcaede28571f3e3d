"""The demo model that ships with the package: trained by `localapi.demo.train`, stored in `model/`, about 1 MB.

It is a real chat model in mlx-lm's form that answers a short list of lines, and says of anything else that it cannot.
"""
