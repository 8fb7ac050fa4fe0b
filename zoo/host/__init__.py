"""Problems whose fitness Python computes, in this process or in worker processes."""
