//! Values of tensors in every form of storage.

use half::{bf16, f16};
use secateur_onnx::schema::TensorProto;
use secateur_onnx::schema::tensor_proto::DataType;
use secateur_onnx::{ExternalData, OnnxDocument, dims, floats, integers};

use crate::hand_made::{model, relu, tensor};

fn nowhere() -> ExternalData {
    let bytes = prost::Message::encode_to_vec(&model(relu()));
    OnnxDocument::from_bytes(bytes.into(), ".".as_ref()).unwrap().external().clone()
}

fn of(kind: DataType, dims: &[i64]) -> TensorProto {
    TensorProto { data_type: Some(kind.into()), ..tensor("w", dims) }
}

#[test]
fn floats_of_every_width_are_read_raw_and_typed() {
    let expected = [0.5f32, -2.0, 96.0, 0.0, 1.0, -0.25];
    let raw = |bytes: Vec<u8>| Some(bytes.into());
    let bits = |of: fn(f32) -> u16| expected.iter().map(|&x| i32::from(of(x))).collect::<Vec<i32>>();
    let bytes = |of: fn(f32) -> Vec<u8>| expected.iter().flat_map(|&x| of(x)).collect::<Vec<u8>>();
    let (half, brain) = (|x: f32| f16::from_f32(x).to_bits(), |x: f32| bf16::from_f32(x).to_bits());
    for tensor in [
        TensorProto { raw_data: raw(bytes(|x| x.to_le_bytes().into())), ..of(DataType::Float, &[2, 3]) },
        TensorProto { float_data: expected.to_vec(), ..of(DataType::Float, &[6]) },
        TensorProto { raw_data: raw(bytes(|x| f64::from(x).to_le_bytes().into())), ..of(DataType::Double, &[2, 3]) },
        TensorProto { double_data: expected.iter().map(|&x| x.into()).collect(), ..of(DataType::Double, &[1, 6]) },
        TensorProto {
            raw_data: raw(bytes(|x| f16::from_f32(x).to_le_bytes().into())),
            ..of(DataType::Float16, &[2, 3])
        },
        TensorProto { int32_data: bits(half), ..of(DataType::Float16, &[3, 2]) },
        TensorProto {
            raw_data: raw(bytes(|x| bf16::from_f32(x).to_le_bytes().into())),
            ..of(DataType::Bfloat16, &[6])
        },
        TensorProto { int32_data: bits(brain), ..of(DataType::Bfloat16, &[6, 1]) },
    ] {
        assert_eq!(floats(&tensor, &nowhere()).unwrap(), expected, "{tensor:?}");
        assert!(integers(&tensor, &nowhere()).unwrap_err().to_string().contains("integers are expected"));
    }
}

#[test]
fn integers_are_read_raw_and_typed() {
    let raw = |bytes: &[u8]| Some(bytes.to_vec().into());
    let long: Vec<u8> = [-1i64, 4096].iter().flat_map(|x| x.to_le_bytes()).collect();
    let short: Vec<u8> = [-1i32, 4096].iter().flat_map(|x| x.to_le_bytes()).collect();
    for tensor in [
        TensorProto { raw_data: raw(&long), ..of(DataType::Int64, &[2]) },
        TensorProto { int64_data: vec![-1, 4096], ..of(DataType::Int64, &[2]) },
        TensorProto { raw_data: raw(&short), ..of(DataType::Int32, &[2]) },
        TensorProto { int32_data: vec![-1, 4096], ..of(DataType::Int32, &[2]) },
    ] {
        assert_eq!(integers(&tensor, &nowhere()).unwrap(), [-1, 4096], "{tensor:?}");
        assert!(floats(&tensor, &nowhere()).unwrap_err().to_string().contains("weights are expected"));
    }
    let truth = TensorProto { raw_data: raw(&[1, 0]), ..of(DataType::Bool, &[2]) };
    assert_eq!(integers(&truth, &nowhere()).unwrap(), [1, 0]);
}

#[test]
fn a_scalar_has_one_element_and_a_zero_extent_none() {
    let scalar = TensorProto { float_data: vec![7.0], ..of(DataType::Float, &[]) };
    assert_eq!((dims(&scalar).unwrap(), floats(&scalar, &nowhere()).unwrap()), ((vec![], 1), vec![7.0]));
    assert_eq!(floats(&of(DataType::Float, &[0, 3]), &nowhere()).unwrap(), []);
}

#[test]
fn shapes_and_lengths_that_do_not_fit_are_refused_by_name() {
    let text = |tensor: TensorProto| floats(&tensor, &nowhere()).unwrap_err().to_string();
    for shape in [&[-1][..], &[i64::MAX, 2], &[1 << 32, 1 << 32], &[0, i64::MAX, i64::MAX], &[1 << 61]] {
        let text = text(of(DataType::Float, shape));
        assert!(text.contains("tensor 'w': no tensor has the shape"), "{text}");
    }
    let raw = |n: usize| TensorProto { raw_data: Some(vec![0; n].into()), ..of(DataType::Float, &[2]) };
    for n in [0, 7, 9, 12] {
        assert!(text(raw(n)).contains(&format!("takes 8 bytes, it has {n}")), "{}", text(raw(n)));
    }
    let list = TensorProto { float_data: vec![1.0; 3], ..of(DataType::Float, &[2]) };
    assert!(text(list).contains("takes 2 elements, it has 3"));
    let text = text(of(DataType::Int8, &[2]));
    assert!(text.contains("type INT8") && text.contains("before it is quantised"), "{text}");
}
