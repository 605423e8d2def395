//! FUSE: decode, nodes, handles, ordinary files, coordinated files, replies. The only place that knows `fuser`.
