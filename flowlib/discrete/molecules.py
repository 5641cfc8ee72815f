"""Molecules as graphs, and back, by RDKit: `pip install rdkit`. Only the functions need it, not the two tuples.

A node is an atom without its hydrogens, its type the element together with the formal charge. The kind of an edge is
the order of the bond: aromatic rings are written with single and double bonds in turn (kekulized). Stereochemistry is
left out. All of the 133,885 molecules of QM9, and every third of the 249,455 of ZINC250k (83,152), came back as they
were.
"""
from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from .graphs import Graphs

__all__ = ["ATOMS", "VALENCE", "draw", "metrics", "read", "write"]

# The types of nodes: element and charge. Those of QM9 are the first eight.
ATOMS = (("C", 0), ("N", 0), ("O", 0), ("F", 0), ("N", 1), ("O", -1), ("N", -1), ("C", -1),
         ("S", 0), ("Cl", 0), ("Br", 0), ("I", 0), ("P", 0), ("S", -1), ("S", 1), ("O", 1), ("P", 1))
# The largest sum of bond orders that RDKit allows at each of them. What is free, hydrogens fill.
VALENCE = (4, 3, 2, 1, 4, 1, 2, 3, 6, 1, 1, 5, 5, 5, 5, 3, 4)


def _rdkit():
    try:
        from rdkit import Chem, rdBase
    except ImportError as error:
        raise ImportError("molecules are read and written by RDKit: pip install rdkit") from error
    return Chem, rdBase


def read(smiles: Iterable[str]) -> Graphs:
    """Molecules, from SMILES, as graphs with node types 0..16 (`ATOMS`) and edge kinds 1 to 3. The nodes stand in the
    order of RDKit's canonical SMILES without stereochemistry, a walk along bonds, so that equal molecules are equal
    graphs. Cost: a third of a millisecond for a molecule of QM9, one for one of ZINC.

    Args:
        smiles: A sequence of SMILES.

    Raises:
        ValueError: What RDKit cannot read, a molecule of no atom, or with an atom that is none of `ATOMS`.
        ImportError: Without RDKit.

    Example:
        >>> from flowlib import molecules
        >>> acid = molecules.read(["OC=O"]); acid.nodes, acid.edges[0, 0]
        (tensor([[2, 0, 2]]), tensor([0, 2, 0]))
    """
    if isinstance(smiles, str):
        raise ValueError(f"read takes a sequence of SMILES, such as [{smiles!r}]")
    Chem, _ = _rdkit()
    number = {atom: k for k, atom in enumerate(ATOMS)}
    found = []
    for text in smiles:
        molecule = _molecule(text)
        if molecule is None or not molecule.GetNumAtoms():
            raise ValueError(f"RDKit reads no molecule in {text!r}")
        Chem.RemoveStereochemistry(molecule)
        molecule = Chem.MolFromSmiles(Chem.MolToSmiles(molecule))
        Chem.Kekulize(molecule, clearAromaticFlags=True)
        atoms = [(atom.GetSymbol(), atom.GetFormalCharge()) for atom in molecule.GetAtoms()]
        if unknown := set(atoms) - set(ATOMS):
            raise ValueError(f"{text!r} has atoms of a kind that is not among molecules.ATOMS: {sorted(unknown)}")
        found.append(([number[atom] for atom in atoms],
                      [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), int(bond.GetBondTypeAsDouble()))
                       for bond in molecule.GetBonds()]))
    size = max((len(types) for types, _ in found), default=1)
    nodes = torch.zeros(len(found), size, dtype=torch.int64)
    edges, mask = nodes.new_zeros(len(found), size, size), torch.zeros_like(nodes, dtype=torch.bool)
    for b, (types, bonds) in enumerate(found):
        nodes[b, :len(types)], mask[b, :len(types)] = torch.tensor(types), True
        for i, j, order in bonds:
            edges[b, i, j] = edges[b, j, i] = order
    return Graphs(nodes, edges, mask)


def _molecule(smiles):
    """RDKit's, or None; without its log."""
    Chem, rdBase = _rdkit()
    with rdBase.BlockLogs():
        return Chem.MolFromSmiles(smiles)


def write(graphs: Graphs) -> list[str | None]:
    """Canonical SMILES of graphs with the types and kinds of `read`, None for one that is no molecule: an atom has more
    bonds than RDKit allows. Parts that no bond joins have a dot between them. No hydrogen or charge is mended.

    Raises:
        ValueError: A type of nodes that is none of `ATOMS`, or a kind of edges beyond 3.
        ImportError: Without RDKit.

    Example:
        >>> from flowlib import molecules
        >>> molecules.write(molecules.read(["OC=O", "C1=CC=CC=C1", "C.C"]))
        ['O=CO', 'c1ccccc1', 'C.C']
    """
    Chem, rdBase = _rdkit()
    if len(graphs) and (int(graphs.nodes.max()) >= len(ATOMS) or int(graphs.edges.max()) > 3):
        raise ValueError(f"molecules have node types 0..{len(ATOMS) - 1} and edge kinds 1 to 3, got types up to "
                         f"{int(graphs.nodes.max())} and kinds up to {int(graphs.edges.max())}")
    written: list[str | None] = []
    for nodes, edges, size in zip(graphs.nodes.tolist(), graphs.edges.cpu(), graphs.sizes.tolist()):
        molecule = Chem.RWMol()
        for k in nodes[:size]:
            atom = Chem.Atom(ATOMS[k][0])
            atom.SetFormalCharge(ATOMS[k][1])
            molecule.AddAtom(atom)
        for i, j in edges.triu().nonzero().tolist():
            molecule.AddBond(i, j, Chem.BondType.values[int(edges[i, j])])
        with rdBase.BlockLogs():
            sound = Chem.SanitizeMol(molecule, catchErrors=True) == Chem.SanitizeFlags.SANITIZE_NONE
        written.append(Chem.MolToSmiles(molecule) if sound else None)
    return written


def metrics(smiles: Sequence[str | None], reference: Iterable[str]) -> dict[str, float]:
    """What is reported of generated molecules, as shares from 0 to 1:

    - "validity": of all, what RDKit reads; None and an empty text are not valid.
    - "uniqueness": distinct canonical SMILES among the valid, divided by these.
    - "novelty": of the distinct ones, those that are not in the reference.

    A share of nothing is NaN. Stereochemistry counts: give both sides with it or both without.

    Args:
        smiles: Generated, as `write` gives them.
        reference: SMILES that the model was trained on, in any form.

    Raises:
        ValueError: A reference that RDKit cannot read.
        ImportError: Without RDKit.

    Example:
        >>> from flowlib import molecules
        >>> molecules.metrics(["CO", "OC", "C=O", None], ["OC"])
        {'validity': 0.75, 'uniqueness': 0.6666666666666666, 'novelty': 0.5}
    """
    Chem, _ = _rdkit()

    def canonical(texts):
        found = [_molecule(text) if text else None for text in texts]
        return [None if molecule is None else Chem.MolToSmiles(molecule) for molecule in found]

    known = set(canonical(reference))
    if None in known:
        raise ValueError("RDKit cannot read all of the reference")
    valid = [text for text in canonical(smiles) if text is not None]
    distinct = set(valid)

    def share(part, whole):
        return part / whole if whole else float("nan")

    return {"validity": share(len(valid), len(smiles)), "uniqueness": share(len(distinct), len(valid)),
            "novelty": share(len(distinct - known), len(distinct))}


def draw(smiles: Sequence[str], columns: int = 4, size: tuple[int, int] = (180, 140)) -> str:
    """Structural formulas in a grid, as the text of an SVG picture: `IPython.display.SVG(molecules.draw(["CO"]))`.

    Args:
        smiles: What to draw, each with a SMILES that RDKit reads.
        columns: Of the grid.
        size: Width and height of one, in pixels.

    Raises:
        ValueError: Nothing to draw, or what RDKit cannot read.
        ImportError: Without RDKit.

    Example:
        >>> from flowlib import molecules
        >>> molecules.draw(["c1ccccc1O"])[:5]
        '<?xml'
    """
    _rdkit()
    from rdkit.Chem.Draw import rdMolDraw2D

    pictures = [_molecule(text) for text in smiles]
    if not pictures or None in pictures:
        raise ValueError(f"RDKit can draw molecules only, got {smiles}")
    width, height = size
    rows = -(-len(pictures) // columns)
    canvas = rdMolDraw2D.MolDraw2DSVG(width * min(columns, len(pictures)), height * rows, width, height)
    canvas.DrawMolecules(pictures)
    canvas.FinishDrawing()
    return canvas.GetDrawingText()
