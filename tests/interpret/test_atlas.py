"""The feature atlas: its numbers against loops over all rows, and its page in a browser."""

import html
import json
import math
import re
import shutil
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from sslk.concepts import ConceptError, ConceptTable, read_concepts
from sslk.features import FeatureStore, StoreWriter
from sslk.interpret.atlas import AtlasInputs, build_atlas
from sslk.interpret.atlas.statistics import coactivation_groups, collect
from sslk.interpret.concept_scores import concept_scores
from sslk.interpret.overlay import overlay
from sslk.interpret.pca import principal_directions
from sslk.interpret.settings import AtlasSettings
from tests.interpret.scene import CLASSES, TRANSFORM, make_scene
from tests.interpret.small import gradcam, scaled
from tests.ops import oracle

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return make_scene(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="module")
def concepts(scene):
    rng = np.random.default_rng(1)
    matrix = np.column_stack([scene.data.labels == 0, rng.random(90) > 0.5, np.ones(90, bool)])
    return ConceptTable.from_dense(torch.from_numpy(matrix), ["is <u>first</u>", "coin", "always"], "concepts")


@pytest.fixture(scope="module")
def atlas(scene, concepts, tmp_path_factory):
    out = tmp_path_factory.mktemp("atlas")
    inputs = AtlasInputs(scene.store, scene.model, scene.data, scene.found, TRANSFORM, concepts)
    return build_atlas(inputs, out, AtlasSettings(top=4, tail_features=1))


def test_statistics_equal_loops_over_all_rows(scene):
    features = torch.tensor([1, 4, 7, 10])
    found = collect(scene.store, scene.found, features, top=5)
    h = scene.store.load().features.double()
    active = oracle.active_set(h, 0.7)
    unit = h / h.norm(dim=1, keepdim=True)
    labels = torch.from_numpy(scene.data.labels)
    for k, j in enumerate(features.tolist()):
        assert found.active[k] == active[:, j].sum()
        for c in range(3):
            assert found.by_class[k, c] == (active[:, j] & (labels == c)).sum()
        order = sorted(range(90), key=lambda i: (-unit[i, j].item(), i))[:5]
        assert found.top_rows[k].tolist() == order
        assert found.top_labels[k].tolist() == labels[order].tolist()
        torch.testing.assert_close(found.top_values[k].double(), unit[order, j], rtol=1e-5, atol=1e-7)
        for m, other in enumerate(features.tolist()):
            assert found.together[k, m] == (active[:, j] & active[:, other]).sum()
    assert found.class_sizes.tolist() == np.bincount(scene.data.labels).tolist() and found.rows == 90


def test_groups_are_the_features_that_fire_together():
    rng = np.random.default_rng(0)
    parents = rng.random((4000, 3)) > 0.7
    firing = np.column_stack([parents[:, k] ^ (rng.random(4000) > 0.95) for k in (0, 1, 0, 2, 1, 0)])
    alone = rng.random((4000, 2)) > 0.6
    on = torch.from_numpy(np.column_stack([firing, alone, np.zeros(4000, bool)])).float()
    group, phi = coactivation_groups((on.T @ on).long(), 4000)
    assert group.tolist() == [0, 1, 0, 2, 1, 0, 3, 4, 5]
    np.testing.assert_allclose(phi[:8, :8], np.corrcoef(on[:, :8].numpy().T), atol=1e-9)
    assert (phi[8, :8] == 0).all()
    assert coactivation_groups(torch.tensor([[5]]), 10)[0].tolist() == [0]


def test_concept_scores_equal_pearson_and_scikit_learn(concepts):
    rng = np.random.default_rng(2)
    features = np.round(rng.random((90, 3)), 1)  # with ties
    features[:, 2] = 1.0
    correlation, auroc = concept_scores(features, concepts.dense().numpy())
    for f in range(2):
        for m in range(2):
            y = concepts.dense().numpy()[:, m]
            assert correlation[f, m] == pytest.approx(np.corrcoef(features[:, f], y)[0, 1], abs=1e-12)
            assert auroc[f, m] == pytest.approx(roc_auc_score(y, features[:, f]), abs=1e-12)
    assert np.isnan(correlation[2]).all() and np.isnan(auroc[:, 2]).all()


def test_cards_say_what_the_store_holds(atlas, scene, concepts):
    kinds = [card["kind"] for card in atlas.cards]
    assert kinds.count("discriminative") == scene.found.num_discriminative and "upper tail" in kinds
    h = scene.store.load().features.double()
    unit = (h / h.norm(dim=1, keepdim=True)).numpy()
    for card in atlas.cards:
        j = card["feature"]
        assert card["percent"] == pytest.approx(scene.found.activation_percent[j].item())
        assert sum(bar["share"] for bar in card["bars"]) == pytest.approx(100)
        assert [bar["count"] for bar in card["bars"]] == sorted((bar["count"] for bar in card["bars"]), reverse=True)
        r = [np.corrcoef(unit[:, j], concepts.dense().numpy()[:, m])[0, 1] for m in range(2)]
        assert card["concepts"][0]["name"] == concepts.names[int(np.argmax(r))]
        assert card["concepts"][0]["r"] == pytest.approx(max(r), abs=1e-4)
        assert len(card["concepts"]) == 2  # the concept of every image says nothing
        p = np.array([bar["share"] / 100 for bar in card["bars"]])
        assert card["classes"] == pytest.approx(math.exp(-(p * np.log(p)).sum()), rel=1e-6)


def test_pictures_hold_the_top_images_above_their_gradcam(atlas, scene):
    card = atlas.cards[0]
    picture = np.asarray(Image.open(atlas.page.parent / card["picture"])).astype(float)
    assert picture.shape == (224, 4 * 112, 3)
    for k, item in enumerate(card["top"]):
        image = scene.data[item["row"]][0].resize((112, 112), Image.Resampling.BILINEAR)
        shown = picture[:112, 112 * k : 112 * (k + 1)]
        assert np.abs(shown - np.asarray(image).astype(float)).mean() < 12  # JPEG
        x = TRANSFORM(scene.data[item["row"]][0])
        layer = scene.model.get_submodule(scene.model.feature_layer)
        heat = scaled(gradcam(scene.model, layer, x, card["feature"]), (112, 112)).numpy()
        below = picture[112:, 112 * k : 112 * (k + 1)]
        wanted, other = (overlay(shown.astype(np.uint8), h).astype(float) for h in (heat, heat[::-1, ::-1]))
        assert np.abs(below - wanted).mean() < 6 < np.abs(below - other).mean()


def test_wrong_inputs_are_named(scene, concepts, tmp_path):
    arguments = (scene.store, scene.model, scene.data, scene.found, TRANSFORM)
    with pytest.raises(ValueError, match="one row per image, got 3 for 90"):
        AtlasInputs(*arguments, concepts.take(torch.arange(3)))
    with pytest.raises(ValueError, match="top must be at least 1"):
        build_atlas(AtlasInputs(*arguments), tmp_path, AtlasSettings(top=0))
    assert not list(tmp_path.iterdir())


def test_concept_tables_from_files(tmp_path):
    np.savez(tmp_path / "c.npz", matrix=np.array([[1, 0], [0, 1]]), names=["a", "b"])
    (tmp_path / "c.csv").write_text("index,a,b\n1,0,1\n0,1,0\n")
    for file in ("c.npz", "c.csv"):
        table = read_concepts(tmp_path / file)
        assert table.dense().tolist() == [[True, False], [False, True]] and table.names == ["a", "b"]
    table.save(tmp_path / "c.safetensors")  # as `sslk concepts build` leaves one
    assert read_concepts(tmp_path / "c.safetensors").dense().equal(table.dense())
    np.savez(tmp_path / "wide.npz", matrix=np.zeros((2, 2), int), names=["a"])
    with pytest.raises(ConceptError, match=r"bits must be \[N, 1\], a column per name, got \[2, 2\]"):
        read_concepts(tmp_path / "wide.npz")
    (tmp_path / "bad.csv").write_text("a,b\n0.5,1\n")
    with pytest.raises(ValueError, match="must hold 0 and 1"):
        read_concepts(tmp_path / "bad.csv")
    (tmp_path / "twice.csv").write_text("index,a\n1,0\n1,1\n")
    with pytest.raises(ValueError, match="every number from 0 to 1 once"):
        read_concepts(tmp_path / "twice.csv")


DRIVER = """
<script>
window.addEventListener("load", async () => {
  const cards = () => [...document.querySelectorAll("article:not([hidden])")].map(n => +n.dataset.feature);
  const set = (id, value, event) => {
    const node = document.getElementById(id); node.value = value; node.dispatchEvent(new Event(event));
  };
  const out = {all: cards(), hacked: typeof window.hacked, lazy: [...document.images].every(i => i.loading === "lazy")};
  set("kind", "upper tail", "change"); out.upper = cards(); set("kind", "", "change");
  set("search", String(out.all[1]), "input"); out.number = cards();
  set("search", "FIRST", "input"); out.concept = cards().length; out.said = document.getElementById("count").textContent;
  set("search", "no such thing", "input"); out.nothing = cards(); out.none = !document.getElementById("none").hidden;
  set("search", "", "input");
  set("sort", "percent:-1", "change");
  out.percent = [...document.querySelectorAll("article")].map(n => +n.dataset.percent);
  set("group", "0", "change"); out.group = cards(); set("group", "", "change");
  const image = document.querySelector("article img");
  image.loading = "eager"; // as if scrolled to: that is told by frames, which virtual time may run out without on a busy machine
  if (!image.complete) await new Promise(loaded => image.addEventListener("load", loaded)); // virtual time waits for it
  out.width = image.naturalWidth;
  const result = document.createElement("pre"); result.id = "result"; result.textContent = JSON.stringify(out);
  document.body.append(result);
});
</script>
"""


def browse(page, script=DRIVER):
    """What a script that uses the page like a reader wrote down."""
    driven = page.with_name("driven.html")
    driven.write_text(page.read_text(encoding="utf-8").replace("</body>", script + "</body>"), encoding="utf-8")
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=10000",
        "--blink-settings=lazyLoadEnabled=true",
        "--dump-dom",
        driven.as_uri(),
    ]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    result = re.search(r'<pre id="result">(.*?)</pre>', dom, re.DOTALL)
    assert result, dom[-2000:]
    return json.loads(html.unescape(result[1]))


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_the_page_opens_filters_sorts_and_shows_an_image(atlas):
    seen = browse(atlas.page)
    by_kind = {kind: [c["feature"] for c in atlas.cards if c["kind"] == kind] for kind in ("upper tail",)}
    assert seen["all"] == [card["feature"] for card in atlas.cards] and seen["lazy"]
    assert seen["upper"] == by_kind["upper tail"] and seen["number"] == [seen["all"][1]]
    assert seen["concept"] == len(atlas.cards) and seen["said"] == f"{len(atlas.cards)} features"
    assert seen["nothing"] == [] and seen["none"]
    assert seen["percent"] == sorted(seen["percent"], reverse=True) and len(set(seen["percent"])) > 2
    assert sorted(seen["group"]) == sorted(c["feature"] for c in atlas.cards if c["group"] == 0)
    assert seen["width"] == 4 * 112
    assert seen["hacked"] == "undefined"


def test_names_from_the_data_are_escaped(atlas):
    text = atlas.page.read_text(encoding="utf-8")
    assert "window.hacked" in text and CLASSES[1] not in text and "<b>dog" not in text and "<u>first" not in text
    assert "<i>0</i>" not in text and "http" not in text.replace("http-equiv", "")


def test_rows_that_are_not_finite_are_nobodys_top_image(scene, tmp_path):
    rows = scene.store.load().features.clone()
    rows[[3, 50]] = torch.nan
    rows[4, 2] = torch.inf
    with StoreWriter(tmp_path / "store", scene.store.spec) as writer:
        for number, part in enumerate(torch.arange(90).split(scene.store.spec.shard_rows)):
            writer.write(number, rows[part], scene.store.labels()[part], part)
    broken = FeatureStore(tmp_path / "store")
    found = collect(broken, scene.found, torch.arange(12), top=80)
    kept = collect(scene.store, scene.found, torch.arange(12), top=90).top_rows
    for j in range(12):
        wanted = [row for row in kept[j].tolist() if row not in (3, 4, 50)]
        assert found.top_rows[j].tolist() == wanted[:80]
    directions = principal_directions(broken, 3)
    clean = principal_directions(rows[rows.isfinite().all(1)], 3)
    torch.testing.assert_close(directions.directions, clean.directions, rtol=1e-6, atol=1e-6)
