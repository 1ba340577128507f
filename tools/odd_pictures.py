"""Writes the pictures of images/testdata, which are of kinds that the Go library does not write: python tools/odd_pictures.py images/testdata"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[0:24, 0:32]
    rgb = Image.fromarray(np.stack([x * 8, y * 10, 255 - x * 4], -1).astype(np.uint8))
    other = rgb.rotate(180)
    rgb.save(folder / "lossy.webp", quality=95)
    rgb.save(folder / "lossless.webp", lossless=True)
    alpha = rgb.convert("RGBA")
    alpha.putalpha(Image.fromarray((x * 8).astype(np.uint8)))
    alpha.save(folder / "alpha.webp", lossless=True)
    rgb.save(folder / "animated.webp", save_all=True, append_images=[other], lossless=True)
    rgb.save(folder / "animated.gif", save_all=True, append_images=[other])
    rgb.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    rgb.save(folder / "progressive.jpg", quality=95, progressive=True)
    rgb.convert("L").save(folder / "grey.jpg", quality=95)
    Image.fromarray((x * 2048).astype(np.uint16)).save(folder / "grey16.png")
    edges = np.zeros((45, 61, 3), np.uint8) + 200  # odd sizes, edges of colour alone
    edges[:, 30:] = (255, 60, 60)
    edges[20:, 10:45] = (40, 90, 230)
    edges[30:38] = (20, 200, 20)
    edges = Image.fromarray(edges)
    for name, options in {"edges-420.jpg": {"subsampling": 2}, "edges-422.jpg": {"subsampling": 1}, "edges-444.jpg": {"subsampling": 0},
                          "edges.webp": {}}.items():
        edges.save(folder / name, quality=92, **options)
        Image.open(folder / name).save(folder / (name + ".png"), optimize=True)
    faint = edges.convert("RGBA")
    faint.putalpha(Image.fromarray((np.mgrid[0:45, 0:61][1] * 4).astype(np.uint8)))
    faint.save(folder / "edges-alpha.webp", quality=92)
    Image.open(folder / "edges-alpha.webp").save(folder / "edges-alpha.webp.png", optimize=True)
    rgb.save(folder / "animated.png", save_all=True, append_images=[other])


main(Path(sys.argv[1]))
