"""IEEE 754 arithmetic for the CUDA C++ forms of rules, whatever the compiler is told.

CuPy ends its options with ``-ftz=true``, which no option of a kernel can take back: every float32 operation that is
said in C++ would flush subnormals to zero. So on a GPU the compute type is a struct whose operations are PTX
instructions, one each, rounded to nearest even: ``+ - * /``, ``sqrt``, unary minus and the six comparisons, of which
``!=`` alone holds for NaN. On the host it is ``float``. Values pass between a format's type and the compute type
through ``widen`` and ``narrow``, and are seen as bits through ``bits_of`` and ``float_of``; ``whole`` is the integer
that one of them holds.
"""

ARITHMETIC = """
#ifdef __CUDA_ARCH__
struct ieee_float {
    float value;
    ieee_float() = default;
    __device__ inline ieee_float(float value) : value(value) {}
};

#define OPERATOR(symbol, instruction) \\
    static __device__ inline ieee_float operator symbol(ieee_float a, ieee_float b) { \\
        float value; \\
        asm(instruction ".rn.f32 %0, %1, %2;" : "=f"(value) : "f"(a.value), "f"(b.value)); \\
        return value; \\
    }
OPERATOR(+, "add")
OPERATOR(-, "sub")
OPERATOR(*, "mul")
OPERATOR(/, "div")
#undef OPERATOR

#define COMPARISON(symbol, relation) \\
    static __device__ inline bool operator symbol(ieee_float a, ieee_float b) { \\
        unsigned int holds; \\
        asm("set." relation ".u32.f32 %0, %1, %2;" : "=r"(holds) : "f"(a.value), "f"(b.value)); \\
        return holds != 0; \\
    }
COMPARISON(<, "lt")
COMPARISON(<=, "le")
COMPARISON(>, "gt")
COMPARISON(>=, "ge")
COMPARISON(==, "eq")
COMPARISON(!=, "neu")
#undef COMPARISON

// Of the bits: neg.f32 may make any NaN of a NaN.
static __device__ inline ieee_float operator-(ieee_float a) {
    float value;
    asm("xor.b32 %0, %1, 0x80000000;" : "=f"(value) : "f"(a.value));
    return value;
}

static __device__ inline ieee_float sqrt(ieee_float a) {
    float value;
    asm("sqrt.rn.f32 %0, %1;" : "=f"(value) : "f"(a.value));
    return value;
}

static __device__ inline void widen(ieee_float& to, float from) { to = from; }
static __device__ inline void widen(double& to, float from) { asm("cvt.f64.f32 %0, %1;" : "=d"(to) : "f"(from)); }
static __device__ inline float narrow(ieee_float from) { return from.value; }
static __device__ inline float narrow(double from) {
    float value;
    asm("cvt.rn.f32.f64 %0, %1;" : "=f"(value) : "d"(from));
    return value;
}
static __device__ inline unsigned int whole(ieee_float from) {
    unsigned int value;
    asm("cvt.rzi.u32.f32 %0, %1;" : "=r"(value) : "f"(from.value));
    return value;
}
#else
typedef float ieee_float;
static inline void widen(float& to, float from) { to = from; }
static inline void widen(double& to, float from) { to = from; }
static inline float narrow(float from) { return from; }
static inline float narrow(double from) { return static_cast<float>(from); }
static inline unsigned int whole(float from) { return static_cast<unsigned int>(from); }
#endif
static __device__ inline void widen(double& to, double from) { to = from; }
static __device__ inline unsigned int whole(double from) { return static_cast<unsigned int>(from); }

static __device__ inline unsigned int bits_of(float value) {
    unsigned int bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}
static __device__ inline float float_of(unsigned int bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
"""
