"""Install ehrseq from `settings.ini`; a built package also carries the job notebooks."""

from configparser import ConfigParser
from pathlib import Path
from shutil import copy2, copytree

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

root = Path(__file__).parent
config = ConfigParser(delimiters=["="])
config.read(root / "settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]


class BuildWithJobs(build_py):
    "`python -m ehrseq.jobs` runs notebooks, so a wheel needs them beside the modules."

    def run(self):
        super().run()
        if self.editable_mode:
            return
        folder = Path(self.build_lib) / "ehrseq" / "notebooks"
        folder.mkdir(parents=True, exist_ok=True)
        for notebook in sorted((root / "nbs" / "jobs").glob("*.ipynb")):
            copy2(notebook, folder)
        copytree(root / "nbs" / "jobs" / "params", folder / "params", dirs_exist_ok=True)


setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=(root / "README.md").read_text(encoding="utf-8")
    if (root / "README.md").exists()
    else "",
    long_description_content_type="text/markdown",
    author=cfg["author"],
    keywords=cfg["keywords"],
    license="Apache-2.0",
    python_requires=f">={cfg['min_python']}",
    packages=find_packages(include=["ehrseq*"]),
    package_data={"ehrseq": ["sample/*.csv.gz", "rates.csv", "py.typed"]},
    install_requires=cfg["requirements"].split(),
    extras_require={
        "notebook": cfg["notebook_requirements"].split(),
        "dev": cfg["dev_requirements"].split(),
        "track": cfg["track_requirements"].split(),
        "finetune": cfg["finetune_requirements"].split(),
        "survival": cfg["survival_requirements"].split(),
        "phenotypes": cfg["phenotypes_requirements"].split(),
        "bench": cfg["bench_requirements"].split(),
        "omop": ["ibis-framework[postgres]>=11"],
        "spark": ["pyspark>=4.0,<4.1"],
        "export": ["onnx>=1.17", "onnxruntime>=1.20", "onnxscript>=0.3"],
    },
    entry_points={"console_scripts": ["ehrseq = ehrseq.runs.command_line:main"]},
    cmdclass={"build_py": BuildWithJobs},
    zip_safe=False,
)
