/**
 * Packs the repository as `npm publish` would and installs the tarball in `folder`, with nothing beside it but the
 * packages that it declares, linked from this checkout: what it forgot to pack or to declare is missing there.
 * @param folder must not be there; whoever comes first makes it, whole or not at all
 */
export function installPacked(folder: string): void;

/** Packs the repository and unpacks the tarball as `folder`, which must not be there. */
export function unpackPacked(folder: string): void;
