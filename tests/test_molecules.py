"""Molecules to graphs and back; what is counted of them."""
import sys

import pytest
import torch

from flowlib import Graphs, data, molecules

NAMES = ("qm9", "zinc-small")


@pytest.fixture
def rdkit():
    return pytest.importorskip("rdkit", reason="molecules are read and written by RDKit")


def test_there_is_a_valence_for_each_kind_of_atom():
    assert len(molecules.VALENCE) == len(molecules.ATOMS) == len(set(molecules.ATOMS)) == 17


@pytest.mark.parametrize("name", NAMES)
def test_shipped_molecules_come_back_as_they_were(name, rdkit):
    graphs = data.load(name, "test").x[torch.arange(0, 200, 2)]
    smiles = molecules.write(graphs)
    assert None not in smiles and not any("." in text for text in smiles)
    again = molecules.read(smiles).pad(graphs.nodes.shape[1])
    assert molecules.write(again) == smiles
    assert torch.equal(again.sizes, graphs.sizes) and torch.equal(again.edges.sum((1, 2)), graphs.edges.sum((1, 2)))


def test_formic_acid_pyridine_and_a_salt(rdkit):
    graphs = molecules.read(["OC=O", "c1ccncc1", "[NH4+].[O-]"])
    assert graphs.sizes.tolist() == [3, 6, 2]
    assert graphs.edges[0, :3, :3].tolist() == [[0, 2, 0], [2, 0, 1], [0, 1, 0]]
    assert graphs.edges[1].sum().item() == 18 and (graphs.nodes[1] == 1).sum() == 1  # three single and three double
    assert graphs.nodes[2, :2].tolist() == [4, 5] and graphs.edges[2].sum() == 0
    assert molecules.write(graphs)[:2] == ["O=CO", "c1ccncc1"]


def test_stereochemistry_is_left_out(rdkit):
    left, right = molecules.read(["C[C@H](N)O", "C[C@@H](N)O"])[0], molecules.read(["NC(C)O"])
    assert torch.equal(left.edges, right.edges) and molecules.write(right) == ["CC(N)O"]


def test_rdkit_refuses_what_exceeds_the_valence_and_nothing_else(rdkit):
    """On random graphs of all types: the table is RDKit's own rule."""
    torch.manual_seed(0)
    nodes = torch.randint(17, (400, 4))
    edges = (torch.randint(6, (400, 4, 4)) * (torch.rand(400, 4, 4) < 0.4)).clamp(max=3).triu(1)
    graphs = Graphs(nodes, edges + edges.mT)
    fits = (graphs.edges.sum(-1) <= torch.tensor(molecules.VALENCE)[nodes]).all(-1)
    assert [text is not None for text in molecules.write(graphs)] == fits.tolist() and 100 < fits.sum() < 300


def test_shares_by_hand(rdkit):
    generated = ["CO", "OC", "CC", "C(C)(C)(C)(C)C", None, "", "C.C"]
    shares = molecules.metrics(generated, ["OC", "CCC"])
    assert shares == {"validity": 4 / 7, "uniqueness": 3 / 4, "novelty": 2 / 3}
    none = molecules.metrics([None], ["C"])
    assert none["validity"] == 0 and none["uniqueness"] != none["uniqueness"]


def test_a_picture(rdkit):
    assert molecules.draw(["CO", "c1ccccc1", "C"], columns=2, size=(100, 80)).count("width='200px' height='160px'") == 1


@pytest.mark.parametrize("call, said", [
    (lambda: molecules.read("CO"), "a sequence of SMILES"),
    (lambda: molecules.read(["C", "C1CC"]), "no molecule in 'C1CC'"),
    (lambda: molecules.read([""]), "no molecule in ''"),
    (lambda: molecules.read(["[Na+].[Cl-]"]), r"'\[Na\+\].*ATOMS"),
    (lambda: molecules.write(Graphs(torch.tensor([[17]]), torch.zeros(1, 1, 1, dtype=torch.int64))), "types up to 17"),
    (lambda: molecules.metrics(["C"], ["C", "?"]), "all of the reference"),
    (lambda: molecules.draw([]), "molecules only"),
], ids=range(7))
def test_what_is_no_molecule(call, said, rdkit):
    with pytest.raises(ValueError, match=said):
        call()


def test_without_rdkit_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "rdkit", None)
    with pytest.raises(ImportError, match="pip install rdkit"):
        molecules.read(["C"])


@pytest.mark.parametrize("name, sizes, types", [("qm9", (120_418, 6690, 6690), 8),
                                                ("zinc-small", (3742, 208, 208), 17)])
def test_splits_of_shipped_molecules(name, sizes, types):
    splits = [data.load(name, split) for split in data.SPLITS]
    assert tuple(len(part.x) for part in splits) == sizes and splits[0][1:] == (None, None)
    rows = [torch.cat([part.x.nodes, part.x.edges.flatten(1)], 1)[:3000] for part in splits]
    for part in splits:
        graphs = part.x[slice(3000)]
        assert graphs.nodes.max() < types
        assert (graphs.edges.sum(-1) <= torch.tensor(molecules.VALENCE)[graphs.nodes]).all()
    assert len(torch.cat(rows).unique(dim=0)) == sum(map(len, rows))


@pytest.mark.parametrize("options, said", [({"levels": 2}, "graphs, which have no levels"),
                                           ({"size": 8}, "have their size")])
def test_graphs_have_neither_levels_nor_a_size(options, said):
    with pytest.raises(ValueError, match=said):
        data.load("zinc-small", **options)
