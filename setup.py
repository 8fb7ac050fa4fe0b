"""Maps the folders `strategies` and `problems` into the package `zoo`. All other metadata is in pyproject.toml."""

from setuptools import find_packages, setup

INSIDE = ("strategies", "problems")

setup(
    packages=[
        *find_packages(include=["zoo", "zoo.*"]),
        *(f"zoo.{name}" for folder in INSIDE for name in find_packages(include=[folder, f"{folder}.*"])),
    ],
    package_dir={f"zoo.{folder}": folder for folder in INSIDE},
)
