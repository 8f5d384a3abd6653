"""Vulkan on a machine that may lack its loader, or where the loader does not find the card's driver."""
import glob
import io
import json
import os
import pathlib
import shutil
import subprocess
import tarfile

MANIFESTS = ("/etc/vulkan/icd.d/*.json", "/usr/share/vulkan/icd.d/*.json", "/usr/local/share/vulkan/icd.d/*.json",
             "/usr/local/etc/vulkan/icd.d/*.json")
"""Where the loader looks by itself."""
OTHER_MANIFESTS = ("/usr/local/nvidia/share/vulkan/icd.d/*.json", "/opt/nvidia/**/icd.d/*.json")
DRIVERS = ("libGLX_nvidia.so.0", "libEGL_nvidia.so.0")
"""Libraries that are NVIDIA's Vulkan driver; the second needs no X11."""
DRIVER_FOLDERS = ("/usr/local/nvidia/lib64", "/usr/local/nvidia/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib64",
                  "/usr/lib/x86_64-linux-gnu/nvidia/current")


def unpack(package, to):
    """Unpacks a .deb, an `ar` archive with data.tar.* in it; with `dpkg` where Python cannot decompress it."""
    data = package.read_bytes()
    if data[:8] != b"!<arch>\n":
        raise ValueError(f"'{package}' is no Debian package: pack again")
    at = 8
    while at < len(data):
        name, size = data[at:at + 16].decode().strip().rstrip("/"), int(data[at + 48:at + 58])
        if name in ("data.tar.xz", "data.tar.gz", "data.tar"):
            with tarfile.open(fileobj=io.BytesIO(data[at + 60:at + 60 + size])) as tar:
                tar.extractall(to, **({"filter": "tar"} if hasattr(tarfile, "tar_filter") else {}))
            return
        at += 60 + size + size % 2
    subprocess.run(["dpkg", "-x", package, to], check=True)


def listed():
    """Names of the shared libraries that the dynamic linker finds by itself."""
    ldconfig = shutil.which("ldconfig") or "/sbin/ldconfig"
    try:
        out = subprocess.run([ldconfig, "-p"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=10).stdout
    except (OSError, subprocess.TimeoutExpired):
        out = ""
    names = {line.split()[0] for line in out.splitlines()[1:] if line.strip()}
    for folder in filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(":")):
        names.update(os.path.basename(file) for file in glob.glob(f"{folder}/*.so*"))
    return names


def libraries(packages, work):
    """Unpacks the packages; gives the folder of those libraries that the machine lacks, and their names."""
    present, lacking = listed(), work / "lib"
    lacking.mkdir()
    for package in sorted(packages.glob("*.deb")):
        unpack(package, work / "packages")
    for file in sorted((work / "packages").rglob("lib*.so*")):
        # By the name that is asked for, such as libvulkan.so.1, which is a link to libvulkan.so.1.3.239.
        if file.is_symlink() and file.name not in present and file.exists():
            (lacking / file.name).symlink_to(file.resolve())
    return lacking, sorted(file.name for file in lacking.iterdir())


def driver_folders(present):
    """Folders of NVIDIA's driver that the dynamic linker does not search."""
    found = []
    for name in DRIVERS:
        folders = [folder for folder in DRIVER_FOLDERS if os.path.exists(f"{folder}/{name}")]
        if name not in present and folders and folders[0] not in found:
            found.append(folders[0])
    return found


def ways(work):
    """Environments to try in turn: what the loader finds, then every manifest by itself, then manifests of our own."""
    standard = sorted(file for pattern in MANIFESTS for file in glob.glob(pattern))
    other = sorted(file for pattern in OTHER_MANIFESTS for file in glob.glob(pattern, recursive=True))
    tried = [({}, "as the loader finds it")] if standard or "VK_DRIVER_FILES" in os.environ else []
    nvidia_first = sorted(standard, key=lambda file: "nvidia" not in os.path.basename(file))
    tried += [({"VK_DRIVER_FILES": file}, file) for file in other + nvidia_first]
    for name in DRIVERS:
        manifest = pathlib.Path(work) / f"{name}.json"
        driver = {"library_path": name, "api_version": "1.3.277"}
        manifest.write_text(json.dumps({"file_format_version": "1.0.1", "ICD": driver}))
        tried.append(({"VK_DRIVER_FILES": str(manifest)}, f"a manifest written for {name}"))
    return tried


def environment(lacking, present):
    """LD_LIBRARY_PATH with what is lacking behind what is there."""
    old = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    path = [*filter(None, old), *driver_folders(present), *([str(lacking)] if any(lacking.iterdir()) else [])]
    return {"LD_LIBRARY_PATH": ":".join(path)} if path else {}
